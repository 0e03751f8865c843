"""Running a bundle on the car: the backend contract, its implementations and the bundle reader.

Nothing here imports torch unless the torch backend is asked for.
"""
