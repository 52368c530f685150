import argparse, random, sys, time, json, math
from pathlib import Path
import torch
from transformers import AutoTokenizer, LlamaForCausalLM
from deployments.demo_model import MODEL_DIR
from deployments.demo_model.data import OffTopic, load_facts
from deployments.demo_model.packing import TokenTree, rows, batch
from deployments.demo_model.reading import tree as make_tree, Tree, Segment
from deployments.demo_model.samples import Sampler
from deployments.demo_model.scrambled import Scrambled
from deployments.demo_model.tokenizer import render, ASSISTANT, END

ap=argparse.ArgumentParser()
ap.add_argument('--load',type=Path,default=None); ap.add_argument('--out',type=Path,required=True)
ap.add_argument('--stage',required=True); ap.add_argument('--seconds',type=float,default=300)
ap.add_argument('--lr',type=float,default=1.5e-3); ap.add_argument('--end',type=float,default=1.0); ap.add_argument('--seed',type=int,default=1)
ap.add_argument('--length',type=int,default=512); ap.add_argument('--rows',type=int,default=8)
ap.add_argument('--adamw',action='store_true')
a=ap.parse_args()
torch.set_num_threads(1); torch.manual_seed(a.seed); rng=random.Random(a.seed)
tok=AutoTokenizer.from_pretrained(MODEL_DIR)

from deployments.demo_model.growing import grown
if a.load: model=LlamaForCausalLM.from_pretrained(a.load,dtype=torch.float32)
else: model=grown(LlamaForCausalLM.from_pretrained(MODEL_DIR,dtype=torch.float32),tok)
model.train()

tok_names=tok.convert_ids_to_tokens(list(range(len(tok))))
def enc(s): return tok.encode(s,add_special_tokens=False)
TRUNK_W=0.0
def token_tree(t:Tree, gap=0, label_w=1.0):
    ids=enc(t.trunk); 
    w=[0.0]*len(ids)
    # the ranks' labels, of which each repeats a header: a lesson in copying
    at=t.trunk.rfind('Documents above'); end=t.trunk.rfind('. They are reference')
    if at>=0:
        n=len(enc(t.trunk[:at])); e=len(enc(t.trunk[:end])); inside=0
        for i in range(n,e):
            if tok_names[ids[i]].endswith('['): inside=0
            else:
                inside+=1
                if inside>=2 and i>n+8: w[i]=0.3
    br=[]
    for b in t.branches:
        q=enc(b.text[:b.learnt_from]); x=enc(b.text[b.learnt_from:])
        br.append((q+x,[0.0]*len(q)+[1.0]*(len(x)-1)+[0.0]))
    return TokenTree((ids,w),br,gap)

def conversation(sample):
    ms=sample.messages; text=render(ms[:-1],add_generation_prompt=True); ans=ms[-1]['content']+END+'\n'
    q=enc(text); x=enc(ans)
    w=[0.0]*len(q)+[1.0]*(len(x)-1)+[0.0]
    ids=q+x
    return TokenTree((ids,w),[],0)

facts=load_facts(); off=OffTopic(); sampler=Sampler(facts,off,rng)
vocab=[k[1:] for k in tok.get_vocab() if k.startswith('Ġ') and k[1:].isalpha() and len(k)>4]
scr=Scrambled(sorted(vocab),rng)
def old(context):
    while True:
        for s in sampler.epoch(0.6,context=context):
            yield conversation(s)
import deployments.demo_model.stages as stages
words=sorted({w for w in vocab if len(w)>3}); source=stages.STAGES[a.stage](dict(rng=rng,words=words,scr=scr,sampler=sampler,facts=facts,off=off,token_tree=token_tree,conversation=conversation,old=old,tree=make_tree,enc=enc))

mats=[p for n,p in model.named_parameters() if p.dim()==2 and 'embed' not in n and 'lm_head' not in n]
rest=[p for n,p in model.named_parameters() if p.dim()!=2 or 'embed' in n]
if a.adamw: opts=[torch.optim.AdamW([{'params':mats,'weight_decay':0.05},{'params':rest,'weight_decay':0.0}],lr=a.lr,betas=(0.9,0.95))]
else: opts=[torch.optim.Muon(mats,lr=a.lr,weight_decay=0.05,momentum=0.95,adjust_lr_fn='match_rms_adamw'),torch.optim.AdamW(rest,lr=a.lr,betas=(0.9,0.95),weight_decay=0.0)]
start=time.monotonic(); n=0; seen=0
stat={}
packed=rows(source,a.length)
last=start
while True:
    done=(time.monotonic()-start)/a.seconds
    if done>=1: break
    lr=a.lr*min(1,n/30+0.03)*(1-(1-a.end)*done)
    got=[next(packed) for _ in range(a.rows)]
    width=max(len(r.ids) for r in got)
    b=batch(got,width)
    with torch.autocast('cpu',dtype=torch.bfloat16):
        h=model.model(input_ids=b.ids,position_ids=b.positions,attention_mask=b.mask,use_cache=False).last_hidden_state[:,:-1]
        pick=b.weights>0
        logits=model.lm_head(h[pick])
    w=b.weights[pick]; t=b.targets[pick]
    ce=torch.nn.functional.cross_entropy(logits.float(),t,reduction='none')
    loss=(ce*w).sum()/w.sum()
    for o in opts:
        for g in o.param_groups: g['lr']=lr
        o.zero_grad(set_to_none=True)
    loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(),1.0)
    for o in opts: o.step()
    n+=1; seen+=sum(len(r.ids) for r in got)
    with torch.no_grad():
        hit=(logits.argmax(-1)==t).float()
        for name,sel in (('ranks',w<0.4),('repeats',w==0.5),('answers',w>0.6)):
            if sel.any():
                s=stat.setdefault(name,[0,0.,0.]); s[0]+=int(sel.sum()); s[1]+=ce[sel].sum().item(); s[2]+=hit[sel].sum().item()
    if n%25==0:
        el=time.monotonic()-start
        print(f'{n} {el:.0f}s {seen/el:.0f}tok/s '+' '.join(f'{k} {v[1]/v[0]:.3f} {v[2]/v[0]:.3f}' for k,v in sorted(stat.items())),flush=True)
        stat={}
    if time.monotonic()-last>240:
        last=time.monotonic(); model.save_pretrained(a.out)
model.save_pretrained(a.out)
