"""Forward passes that sampling and training share: over a token tree, each prefix computed once."""
