"""From sensor bytes to an Observation: decoding, rectification, synchronisation, ego motion.

The same functions serve the car, the built-in world and the recording adapters. Import the modules
directly; this file stays empty so that importing one costs nothing of the others.
"""
