"""A CUDA device without a card, for tests of what only runs on a GPU. ``device.cpp`` says what it simulates.

Torch asks only once whether there is a device. So the library is loaded before torch, by ``sitecustomize``,
in a process of its own: ``environment`` has the variables for it.
"""
