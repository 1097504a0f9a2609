"""Builds a model of the zoo: trains it, packs it, measures it, and writes its card. `python -m zoo NAME --runs DIR`.

models.py     what each is trained on, and what its card says that cannot be measured
build.py      from the order to the folder in the package; every part goes on where it was stopped
card.py       the measured figures as text and pictures
following.py  whether a model of `shapes` draws what it is told, by the exact checker
concepts.py   whether a model of `emoji` draws the concept and the style it is told
"""
