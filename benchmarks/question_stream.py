"""A stream of questions of which it is known, by construction, which ask the same.

An intent is a pattern, a filler and a restriction. A pattern writes its intent in many ways: `(a|b|)` is a choice, `{city}` the filler.
Two questions are equivalent exactly if they come from one intent. Patterns come in families that differ in one word that matters (enable
and disable), fillers of one kind are close to each other (Paris and Lyon), and a restriction is a small part of a sentence: what a
careless cache confuses.
"""

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

FILLERS = {
    "city": "Paris|Lyon|London|Berlin|Munich|Madrid|Rome|Milan|Tokyo|Osaka|Chicago|Boston|Toronto|Sydney|Mumbai|Cairo",
    "country": "France|Spain|Italy|Germany|Japan|China|Brazil|Canada|Mexico|India|Egypt|Kenya|Norway|Sweden|Poland|Chile",
    "language": "Python|Java|JavaScript|Go|Rust|Ruby|Kotlin|Swift|PHP|Scala|Perl|Haskell",
    "service": "Gmail|Netflix|Spotify|Dropbox|Slack|GitHub|PayPal|Zoom|Instagram|LinkedIn|Amazon|Steam",
    "device": "phone|laptop|tablet|printer|router|camera|television|smart watch|game console|headset",
    "dish": "pancakes|lasagna|pad thai|fried rice|lentil soup|apple pie|sushi|omelette|paella|hummus|ramen|risotto",
    "animal": "dogs|cats|horses|rabbits|parrots|hamsters|goldfish|turtles|ferrets|chickens",
    "sport": "tennis|golf|chess|basketball|swimming|boxing|cricket|fencing|rowing|judo",
    "subject": "calculus|organic chemistry|Spanish|statistics|piano|photography|economics|drawing|Mandarin|philosophy",
    "element": "gold|silver|copper|iron|carbon|sodium|helium|uranium|calcium|mercury",
    "file": "PDF|CSV|JSON|XML|ZIP|PNG|Excel|Word",
    "person": "Einstein|Newton|Darwin|Mozart|Picasso|Gandhi|Napoleon|Cleopatra|Tesla|Shakespeare",
    "amount": "10|20|30|50|100|200|500|1000",
    "symptom": "a headache|back pain|a sore throat|insomnia|a fever|a cough|an upset stomach|dry skin",
    "feature": "dark mode|two-factor authentication|notifications|location tracking|automatic updates|cookies|airplane mode|read receipts",
}
"""Kinds of things, and the things."""

HOW = "(How do I|How can I|How do you|What is the way to|What is the best way to|How should I|How would I)"
WHAT = "(What is|What's|Tell me|Can you tell me)"
PATTERNS = [
    f"{HOW} (reset|recover) my {{service}} password?",
    f"{HOW} (delete|close|remove) my {{service}} account?",
    f"{HOW} (create|open|set up) (a|my) {{service}} account?",
    f"{HOW} (cancel|stop|end) my {{service}} subscription?",
    f"{HOW} (enable|turn on|activate) {{feature}}?",
    f"{HOW} (disable|turn off|deactivate) {{feature}}?",
    f"{HOW} (charge|recharge) my {{device}}?",
    f"{HOW} (clean|wash) my {{device}}?",
    f"{HOW} (fix|repair) (a|my) broken {{device}}?",
    f"{HOW} (sell|get rid of) my old {{device}}?",
    "(Why is|What makes) my {device} (so slow|slow|running slowly)?",
    "(Why does|What makes) my {device} (keep turning off|turn off by itself|shut down by itself)?",
    f"{WHAT} the (population|number of inhabitants) of {{country}}?",
    f"{WHAT} the capital (city |)of {{country}}?",
    f"{WHAT} the (currency|money) (of|used in) {{country}}?",
    f"{WHAT} the (official |)language (of|spoken in) {{country}}?",
    f"{WHAT} the best time (of the year |)to visit {{country}}?",
    "(What are|Which are) the best (places|spots) to (visit|see) in {city}?",
    "(What are|Which are) the best restaurants (in|of) {city}?",
    "(What are|Which are) the cheapest hotels (in|of) {city}?",
    "(How expensive is it|How much does it cost) to live in {city}?",
    "(Is it safe|Is it dangerous or safe) to (walk|go) alone in {city} at night?",
    "How is the weather (today |)in {city}?",
    "How is the traffic (today |)in {city}?",
    "(How do I|How can I|What is the best way to) (learn|study) {subject}?",
    "(How long|How much time) does it take to learn {subject}?",
    "(Why should I|Why would anyone|What are the reasons to) learn {subject}?",
    "(What are|Which are) the best books (about|on|for learning) {subject}?",
    f"{HOW} (cook|make|prepare) {{dish}}?",
    "(How many calories are in|How many calories do|How many calories does one get from) {dish}?",
    "(How long|For how long) (should|do) I cook {dish}?",
    "(What goes well with|What should I serve with|What do I serve with) {dish}?",
    "(Can|May) {animal} eat chocolate?",
    "(Can|May) {animal} eat cheese?",
    "(How long do|What is the life span of) {animal} (live|)?",
    "(What do|What should) {animal} eat?",
    "(Where do|In which places do) {animal} (sleep|like to sleep)?",
    "(What are|Explain|Can you explain) the (basic |)rules of {sport}?",
    "(Who is|Who's|Who was) the best {sport} player (ever|of all time|in history)?",
    "(How do I|How can I|How should I) (get better at|improve at|become better at) {sport}?",
    "(Where can I|Where do I) (watch|see) {sport} (online|on the internet)?",
    "(What equipment|What gear) do I need for {sport}?",
    f"{WHAT} the (melting point|melting temperature) of {{element}}?",
    f"{WHAT} the (boiling point|boiling temperature) of {{element}}?",
    f"{WHAT} the (atomic number|number of protons) of {{element}}?",
    f"{WHAT} the price of {{element}} (today|right now|now)?",
    "(How do I|How can I) (read|open|load) a {file} file in Python?",
    "(How do I|How can I) (write|save|create) a {file} file in Python?",
    "(How do I|How can I) (open|view) a {file} file on my phone?",
    "(How do I|How can I) compress a {file} file?",
    f"{HOW} (sort|order) a list in {{language}}?",
    f"{HOW} (reverse|invert) a list in {{language}}?",
    f"{HOW} (install|set up) {{language}} on (Windows|my Windows computer)?",
    f"{HOW} (uninstall|remove) {{language}} from (Windows|my Windows computer)?",
    "(Is|Would you say that) {language} (is |)(hard|difficult) to learn?",
    "(When was|In what year was|In which year was) {person} born?",
    "(When did|In what year did|In which year did) {person} die?",
    "(Where was|In what place was|In which place was) {person} born?",
    "(Who was|Who were|Tell me who was) the (wife|spouse) of {person}?",
    "(What is|What was) {person} (famous|known|best known) for?",
    "(How do I|How can I) (treat|cure|get rid of) {symptom}?",
    "(What causes|What is the cause of|What are the causes of) {symptom}?",
    "(How do I|How can I) (prevent|avoid|avoid getting) {symptom}?",
    "(When should I|At what point should I) see a doctor (about|for) {symptom}?",
    "(How do I|How can I) (convert|change) {amount} dollars to euros?",
    "(How do I|How can I) (convert|change) {amount} euros to dollars?",
    "(How much is|How many kilometres are|Convert) {amount} miles (in kilometres|to kilometres)?",
    "(How much is|How many miles are|Convert) {amount} kilometres (in miles|to miles)?",
    "(How do I|How can I) (earn|make) {amount} dollars a day?",
    "(How do I|How can I) (save|put aside) {amount} dollars a month?",
]
RESTRICTIONS = ["", " in winter", " for children", " at work", " in the 1990s", " without any help", " on a Sunday"]
"""Before the end of a question: with one of them it is another question."""
MANNERS = ["{}"] * 8 + ["Please tell me: {}", "Hi, {}", "{} Thanks!", "{} Please help."]


@dataclass(frozen=True, slots=True)
class Query:
    """A question; `intent` is equal for all that ask the same."""

    text: str
    intent: int
    place: str = "f0"
    """The partition of the cache that it is asked in."""


def intents() -> list[tuple[str, str, str]]:
    """Every (pattern, filler, restriction)."""
    return [
        (pattern, filler, restriction)
        for pattern in PATTERNS
        for filler in FILLERS[_kind(pattern)].split("|")
        for restriction in RESTRICTIONS
    ]


def stream(length: int, seed: int, skew: float = 0.4) -> Iterator[Query]:
    """`length` questions; the popularity of the intents follows Zipf's law with exponent `skew`, in an order drawn by `seed`."""
    rng = random.Random(seed)
    known = intents()
    rng.shuffle(known)
    weights = list(itertools.accumulate(1 / (rank + 1) ** skew for rank in range(len(known))))
    for intent in rng.choices(range(len(known)), cum_weights=weights, k=length):
        yield Query(_written(*known[intent], rng), intent)


def _written(pattern: str, filler: str, restriction: str, rng: random.Random) -> str:
    text = re.sub(r"\(([^()]*)\)", lambda choice: rng.choice(choice[1].split("|")), pattern)
    text = re.sub(r"\{\w+\}", lambda _: filler, text)
    text = text.removesuffix("?") + restriction + "?"
    text = re.sub(r"\s+([?.!])", r"\1", re.sub(r"\s+", " ", text)).strip()
    if rng.random() < 0.2:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.2:
        text = text.rstrip("?")
    return rng.choice(MANNERS).format(text)


def _kind(pattern: str) -> str:
    found = re.search(r"\{(\w+)\}", pattern)
    if found is None:
        raise ValueError(f"the pattern has no filler: {pattern}")
    return found[1]
