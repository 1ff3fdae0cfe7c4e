"""What a version's rows were like when it was trained, and what those of now are like beside them.

`baseline` goes with each version, a `window` is rows of now, `drift` compares the two, `record`
and `report` say what was found, and `action` does what may follow.
"""
