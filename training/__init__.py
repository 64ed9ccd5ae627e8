"""How the bundled tiny checkpoint is made: world, autoencoder, transformer, evaluation.

Nothing in the service imports this package.
"""
