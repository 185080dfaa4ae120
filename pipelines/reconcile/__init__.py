"""The nightly proof: an independent batch computation, compared row by row (DESIGN section 8).

Nothing here imports from `pipelines.join` or `pipelines.settle`, so that a mistake there cannot hide here; a test holds that.
"""
