"""Files that strangers wrote: what they are by content, and how they are opened without trust.

::

    containers    which formats are let in, told by their first bytes
    probe         the gate: one container opened with its demuxer named, its streams and limits checked
    guard         a child process in which a function runs over one file, with limits
    guard_child   that child's side
    isolation     the rights that the child gives up before it reads a byte
"""
