"""Preference between two methods: blind votes of people on an offline page, or of a model, and what they add up to.

    ballot.py    draw samples that two methods answered, and who stands on the left
    page.py      the offline page that collects votes, and the one that shows both answers with their names
    votes.py     the schema of exported votes
    endpoint.py  any OpenAI-compatible chat endpoint: bounded, redirects refused, its key in no file
    settings.py  how a model is asked, checked first
    prompt.py    what a judge is asked, and how its answer is read
    judge.py     a model's votes: both orders, cached, with their cost
    alpha.py     Krippendorff's alpha
    tallies.py   rates, position and agreement with their intervals
    merge.py     votes of several annotators, checked and merged
    words.py     those in words and tables
    export.py    as JSON and CSV

Neither torch nor lmms-eval is imported here.
"""
