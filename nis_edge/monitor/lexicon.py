"""The words by which evidence knows what an event is about: marks, and words that say nothing. English only.

A mark is a hint, never a verdict: it stands beside the numbers of ``evidence`` for the model and for whoever audits it.
Whoever changes a word changes what the model is shown, and trains it again.
"""

from __future__ import annotations

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS: Final = _words(
    "a about all also am an and any are as at be been being but by can could did do does done for from had "
    "has have he her here his how i if in into is it its just let lets me my not now of off on one onto or "
    "our out over per please she should so some such than that the their them then there they this to too "
    "under up us very via was we were what when where which who will with would you your"
)
"""Words that say nothing about what an event is about."""

ASKING_WORDS: Final = _words(
    "again agree confirm correct give hello information know need provide record remind right say specify task tell"
)
"""Words of questions that are not what is asked for."""

TOOL_VERBS: Final = _words("call check count fetch find get list log look lookup measure query read run set")
"""Words of tools' names that say nothing about what a tool is for."""

MARKS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        (
            "harm",
            r"\b(?:delet\w*|eras\w*|wip(?:e|ed|ing)\b|purg\w*|rm -rf|drop(?:ping)? (?:the )?(?:table|database)|"
            r"overwrit\w*|disabl\w*|overrid\w*|bypass\w*|circumvent\w*|interlock\w*|passwords?|secrets?|credentials?|"
            r"api[ _-]?keys?|private key|exfiltrat\w*|leak\w*|wire transfer|transfer funds|sudo|chmod 777|force[- "
            r"]?(?:push|unlock|open)|ignore (?:all |any )?(?:previous|prior|above|earlier)|without (?:approval|"
            r"permission|asking|authori\w+)|kill -9|self[- ]?destruct|unlock\w*|jailbreak|attacker)\b",
        ),
        (
            "bad",
            r"\b(?:invalid\w*|missing (?:required )?(?:arg\w*|param\w*|field|key|value)|unknown (?:tool|param\w*|"
            r"arg\w*|function|field|command)|unexpected (?:keyword|arg\w*|field|type)|not a valid|no such (?:tool|"
            r"function|command)|typeerror|valueerror|keyerror|schema|malformed|unrecogni[sz]ed|required (?:property|"
            r"field|argument)|expected (?:int\w*|str\w*|number|float|list|array|object|bool\w*)|out of bounds|422|"
            r"400)\b",
        ),
        (
            "err",
            r"\b(?:error\w*|fail\w*|exception|traceback|time[d]?[ -]?out|refused|unavailable|crash\w*|50[0-4]|"
            r"denied)\b",
        ),
        (
            "done",
            r"\b(?:done|complet(?:e|ed|ion)|finished|finali[sz]ed|accomplished|concluded?|all set|clos(?:e|ed|ing) "
            r"(?:the |this )|wrapp\w+ up|signing off|nothing (?:more|else|left)|terminate|mission over|resolved|"
            r"delivered|final (?:report|answer))",
        ),
        (
            "sure",
            r"\b(?:certain(?:ly|ty)?|definite(?:ly)?|guarantee\w*|no doubt|undoubtedly|absolutely|without (?:a |any "
            r")?(?:doubt|question)|100 ?(?:%|percent)|surely|beyond doubt|positive that|unquestionabl\w+|obviously|"
            r"clearly|99(?:\.\d+)? ?%|impossible (?:that|to be wrong)|stake my|fully confident|zero risk)",
        ),
        (
            "fix",
            r"\b(?:correct(?:ion|ing|ed)|sorry|apologi\w+|my mistake|misread|mistyped|retract\w*|i was wrong|earlier "
            r"i said|supersed\w+|revis(?:ed|ing|ion)|updat(?:ed|ing) (?:my|the|our))",
        ),
        (
            "hedge",
            r"\b(?:maybe|might|perhaps|not sure|unsure|don't know|do not know|cannot (?:confirm|tell|verify)|can't "
            r"(?:confirm|tell|verify)|uncertain|unclear|unable|estimate[ds]?|roughly|approximately|unverified|not "
            r"(?:yet )?(?:verified|known))\b",
        ),
        (
            "wait",
            r"\b(?:wait\w*|blocked|pending|stand(?:ing)? ?by|holding|still (?:working|on it|processing|busy|thinking|"
            r"trying)|idle|queued|in progress|hang on|no (?:progress|change|news) yet|until)\b",
        ),
        (
            "retry",
            r"\b(?:retry\w*|re-?try|again|once more|another (?:attempt|try|go)|one more time|re-?run\w*|repeat\w*|"
            r"attempt \d+)\b",
        ),
        (
            "stale",
            r"\b(?:stale|outdated|out[- ]of[- ]date|hours? (?:old|ago)|minutes? old|days? (?:old|ago)|yesterday|last "
            r"(?:update|sample|reading|seen|heard)|no (?:new |fresh )?(?:update|data|sample|reading|packet)s?|cached|"
            r"not (?:been )?updated|since \d|old (?:data|reading|value|sample)s?|gone quiet|silent)\b",
        ),
        (
            "sensor",
            r"(?:\b(?:stuck|flat-?line\w*|frozen|drift\w*|spik\w+|nan|out of range|implausible|saturat\w+|no signal|"
            r"open circuit|dropout\w*|noisy|jump\w*|identical (?:value|reading|sample)s?|unplugged|disconnected|"
            r"glitch\w*|miscalibrat\w*)\b|-127|\b(?:9999|65535|4095)\b)",
        ),
        (
            "load",
            r"\b(?:oom|out of memory|memory (?:full|low|pressure|usage)|throttl\w+|overheat\w+|swap\w*|disk (?:is "
            r")?full|no space|quota|budget (?:used|spent|exhausted|exceeded|left)|overload\w*|rate limit\w*|backlog|"
            r"saturation|queue (?:is )?(?:full|growing)|starv\w+|too hot|cpu)\b",
        ),
        (
            "okd",
            r"\b(?:approv\w+|authori[sz]\w+|permission|permitted|sign(?:ed)?[- ]off|dry[- ]run|backed? up|backup|"
            r"cleared (?:to|for)|go-ahead|confirmed by|with consent|handed? (?:it )?over|taking over|delegat\w+|"
            r"stand-in|on behalf)\b",
        ),
        (
            "vague",
            r"\b(?:the usual|that one|the other one|the other|one of (?:them|those|these)|somewhere|some(?:time| time|"
            r" point)|soon|a few|as (?:before|discussed|agreed|last time)|you know|whatever|either|something|the "
            r"thing|that thing|a bit|like last time|the right one|it all|the big one|do the rest|sort it|fix it|move "
            r"it|change it|handle it)\b",
        ),
        (
            "order",
            r"\b(?:(?:stop|quit|avoid) (?:using|reading|doing)|(?:do not|don't|must not|never) (?:use|read|do|take|"
            r"touch)|instead|skip\w*|from now on|change of plan|new (?:instruction|order|plan)|leave \w+(?: \w+){0,3} "
            r"alone|is closed|no longer|rather than)\b",
        ),
        (
            "ack",
            r"\b(?:understood|noted|as (?:told|instructed|requested|asked|ordered)|will do|accepted|roger|okay|ok,|i "
            r"follow|got it|switching as|complying)\b",
        ),
        (
            "restart",
            r"\b(?:from (?:the )?(?:beginning|scratch|start)|start(?:ing)? over|step (?:1|one)\b|first of all|fresh "
            r"start|begin(?:ning)?|new task|initial item|start again)\b",
        ),
        (
            "verify",
            r"\b(?:verif\w+|double[- ]?check\w*|confirm\w*|validat\w+|cross[- ]?check\w*|tested|reviewed|audit\w*|"
            r"according to|source\w*|measured|as shown)\b",
        ),
    )
)
"""Lexical marks, gravest first; all patterns here are for text in lower case, which is searched twice as fast."""

ASKING: Final = re.compile(
    r"\?|\b(?:please (?:provide|tell|specify|give)|remind me|tell me|let me know which)\b",
)
"""How a question shows itself, with or without its mark."""

NEGATION: Final = re.compile(
    r"\b(?:not|no|never|none|cannot|can't|isn't|wasn't|didn't|doesn't|hasn't|without)\b",
)
"""Words that turn a statement round."""

OPPOSITES: Final[tuple[tuple[str, str], ...]] = (
    ("open", "close"),
    ("on", "off"),
    ("up", "down"),
    ("safe", "unsafe"),
    ("pass", "fail"),
    ("enable", "disable"),
    ("full", "empty"),
    ("start", "stop"),
    ("rise", "fall"),
    ("increase", "decrease"),
    ("high", "low"),
    ("online", "offline"),
    ("healthy", "faulty"),
    ("dry", "wet"),
    ("accept", "reject"),
    ("available", "unavailable"),
    ("north", "south"),
    ("left", "right"),
    ("present", "absent"),
    ("valid", "invalid"),
    ("running", "stopp"),
    ("clear", "blocked"),
    ("complete", "incomplete"),
    ("locked", "unlocked"),
    ("normal", "abnormal"),
    ("possible", "impossible"),
    ("success", "fail"),
    ("correct", "wrong"),
    ("correct", "incorrect"),
    ("yes", "no"),
    ("true", "false"),
)
"""Stems of states that exclude each other."""
