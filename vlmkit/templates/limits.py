"""How far a chat template gets. A real one has up to 60,000 characters and takes milliseconds."""

MAX_SOURCE_CHARS = 1_000_000
"""Of a template: compiling takes time and memory in proportion to its source."""

MAX_OUTPUT_CHARS = 20_000_000
"""Of what a template writes: beyond what the context of any model holds."""

MAX_SECONDS = 4
"""For one rendering, compiling included."""

MAX_MEMORY_BYTES = 2**30
"""Of the process that runs the template: its own values and copies of the messages."""

START_SECONDS = 60
"""For that process to start, also where the machine is busy."""
