"""The nightly proof: an independent batch computation, compared row by row (DESIGN section 8).

Nothing here imports from `pipelines.join`, `pipelines.settle` or `pipelines.sink`, so that a mistake there cannot hide here; a
test holds that.
"""
