"""From a name or folder to a model: found, read, checked, and put on its device."""
