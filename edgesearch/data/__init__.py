"""Images: where they come from, how they are decoded, and the rule that fits them to a network."""
