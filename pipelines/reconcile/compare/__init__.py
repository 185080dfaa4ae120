"""The comparison: batch's answer at pinned table versions against the rows of the output table."""
