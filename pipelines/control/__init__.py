"""The few facts that lanes ask of each other: table `control`, and the rule that the output table carries."""
