"""From a line of text to an accepted event, or to a quarantined payload with its reason. Pure functions of DataFrames."""
