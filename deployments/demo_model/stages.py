from deployments.demo_model.passages import Librarian, Size, Shares
from deployments.demo_model.samples import SYSTEM_PROMPTS
def scrambled0(c):
    rng=c['rng']; old=c['old'](False)
    while True:
        r=rng.random()
        if r<0.15: yield next(old)
        else:
            d=rng.choice((1,2,2,3)); 
            yield c['token_tree'](c['tree'](c['scr'].reading(d,rng.choice((1,1,2)),rng.randint(3,6),longest=rng.choice((4,6,8))),(),rng))
def before(c):
    rng=c['rng']
    ms=c['sampler']._system() if rng.random()<0.4 else []
    if rng.random()<0.05: ms+=c['sampler']._turn()
    return ms
def mixed(oldshare,scrshare,docs,sents,shares,context,gaps=0.0):
    def f(c):
        rng=c['rng']; old=c['old'](context); lib=Librarian(c['facts'],c['off'],c['words'],rng)
        while True:
            r=rng.random()
            if r<oldshare:
                for _ in range(3): yield next(old)
                continue
            if r<oldshare+scrshare: rd=c['scr'].reading(rng.choice((1,2,3)),rng.choice((1,2)),rng.randint(3,6),longest=rng.choice((4,6,8)))
            else:
                d=rng.choice(docs); s=rng.choice(sents); rd=lib.reading(Size(d,s,min(8,2+d*s)),shares)
            yield c['token_tree'](c['tree'](rd,before(c),rng), gap=rng.randrange(1500) if rng.random()<gaps else 0)
    return f
from deployments.demo_model.packing import TokenTree
def repeats(rng,size):
    p=rng.randint(6,40); pool=[rng.randrange(6,size) for _ in range(rng.randint(max(3,p//2),p))]
    one=[rng.choice(pool) for _ in range(p)]
    ids=list(one); w=[0.0]*p
    while len(ids)<120:
        # again from anywhere in it, after some other tokens
        gap=[rng.randrange(6,size) for _ in range(rng.randint(0,5))]
        a=rng.randrange(p//2+1); part=one[a:]
        ids+=gap+part; w+=[0.0]*len(gap)+[0.0]+[0.5]*(len(part)-1)
    return TokenTree((ids,w),[])
def induce(c):
    from deployments.demo_model.reading import Ask, Reading
    rng=c['rng']; old=c['old'](False); lib=Librarian(c['facts'],c['off'],c['words'],rng); size=3072
    while True:
        r=rng.random()
        if r<0.10: yield next(old)
        else:
            if r<0.45: rd=c['scr'].reading(rng.choice((1,2,2,3)),rng.choice((1,1,2)),rng.randint(3,6),longest=rng.choice((4,6,8)))
            else:
                d=rng.choice((1,2,2)); rd=lib.reading(Size(d,1,3+d),Shares(0.03,0.0,0.03))
            asks=[]
            for a in rd.asks:
                if a.support is not None and rng.random()<0.5:
                    ws=a.answer.split(); k=rng.randint(2,len(ws)) if len(ws)>2 else len(ws)
                    st=rng.choice((0,0,rng.randint(0,len(ws)-k)))
                    a=Ask(rng.choice(('','What about ','Repeat: '))+' '.join(ws[st:st+k]),a.answer,a.support)
                asks.append(a)
            yield c['token_tree'](c['tree'](Reading(rd.documents,asks),(),rng))
STAGES={'induce':induce,'scrambled0':scrambled0,
 'short':mixed(0.10,0.25,(1,1,2,2,3),(1,1,2),Shares(0.05,0.02,0.05),False),
 'middle':mixed(0.2,0.12,(1,2,3,3,4,5),(1,2,3),Shares(0.08,0.05,0.06),True),
 'long':mixed(0.3,0.05,(1,2,3,3,4,5),(1,2,3,5),Shares(0.15,0.08,0.07),True,0.2),
}
