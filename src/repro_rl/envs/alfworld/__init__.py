"""ALFWorld's rules and texts, played natively. The environment itself is not registered yet."""
