"""Our environments in other libraries, and other people's trainers, through their own extension points.

``session`` is the common core of the environments' adapters; docs/adapters.md shows them.
"""
