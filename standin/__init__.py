"""The stand-in collection: drawn pictures of nine contents in eleven styles, for trying everything with no data at hand.

`scenes.py` has shapes, backgrounds and how a thing is placed in front of one, `contents.py` the nine things and
`styles.py` the eleven ways of rendering any scene. `python -m standin DIR` draws the collection.
"""
