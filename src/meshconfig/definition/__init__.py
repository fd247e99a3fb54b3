"""The documents of a mesh repository, and the effective values that the compiler reads, as the same types.

A block's defaults are the built-in ones, so that an empty file is a complete definition. What files write is merged as
nodes before it is converted (`meshconfig.effective`): route over dependency over the callee's defaults over the mesh's
defaults over these. So a value of these types is always complete, and there are no half-filled ones.

Durations are seconds; in files they are texts such as ``250ms``. Percentages are numbers from 0 to 100.
"""
