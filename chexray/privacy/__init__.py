"""Does a generator give patients away? Pure maths: distances and scores in, numbers and flags out.

training set: the real images the generator learned from. held-out set: real images of other patients it never saw, the
null of every test. synthetic set: what is audited. A result reads "no copy found at this sensitivity", never more: a
search sees the copies that its encoder brings close, and nothing else.
"""
