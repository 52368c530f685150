"""Questions whose right answer is another one soon: they are not for the semantic tier."""

import re

_ENGLISH = (
    r"right now|at the moment|as of now|so far|up[- ]to[- ]date|nowadays|these days|today|tonight|tomorrow|yesterday|"
    r"(?:this|last|next|past|coming) (?:week|weekend|month|quarter|year|season|morning|afternoon|evening|night|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday)|"
    r"current|currently|latest|newest|recent|recently|upcoming|live score|breaking news|news|"
    r"what time is it|what day is it|what date is it|what(?:'s| is) the (?:time|date|day)|"
    r"weather|forecast|traffic|stock price|share price|exchange rate|price of|how much (?:is|does) .{1,40} (?:worth|cost)|"
    r"minutes? ago|hours? ago|days? ago|just (?:now|happened|released)|still (?:alive|open|available)"
)
_CHINESE = (
    "现在|目前|当前|如今|今天|今晚|明天|昨天|前天|后天|本周|这周|上周|下周|本月|这个月|上个月|下个月|今年|去年|明年|"
    "最新|最近|刚刚|刚才|几点|几号|星期几|天气|路况|股价|汇率|新闻|实时|多少钱"
)
_TIMELY = re.compile(rf"\b(?:{_ENGLISH}|now)\b|{_CHINESE}", re.IGNORECASE)
_LOOSE = re.compile(r"\b(?:now that|electric current|current (?:account|directory|user|branch|folder))\b", re.IGNORECASE)
"""Where the words above say nothing about time."""


def is_time_sensitive(text: str) -> bool:
    """Whether the question names a time that moves, or a thing that changes from day to day. English and Chinese."""
    return bool(_TIMELY.search(_LOOSE.sub(" ", text)))
