"""The networks as numbers: weights, floating point operations and activations of each, from the
`config.json` of its checkpoint. Formulas only: no torch, and no weights are read.

Each class is one network; its fields are keys of the network's configuration, its defaults the
published network. A multiplication and an addition are two operations; only matrix products,
convolutions and attention are counted, as torch's FlopCounterMode does. Activations are the largest
sum of tensors that are alive together, without the weights. `tests/core` holds every formula to the
full-size networks on the meta device.
"""
