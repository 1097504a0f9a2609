"""Training: one loop that drives any `Task`, loses nothing when killed, and describes itself in a run folder.

It knows no diffusion. Modules are imported by name (`nirvana.train.loop`, `.run`, ...), so that reading a run
folder costs no torch.
"""
