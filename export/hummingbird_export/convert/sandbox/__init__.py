"""Pickled checkpoints read as plain data, by the standard library alone, in a child process.

machine.py interprets the pickle language without any way to call what a file names; child.py adds
limits on memory and time. Nothing here imports torch, NumPy or anything installed.
"""
