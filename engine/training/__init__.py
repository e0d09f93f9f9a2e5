"""The recipe that makes the embedded model pair: corpus, tokenizer, target, draft, prompts.

`pair.py` runs it from end to end; `draftree train pair` is its command.
"""
