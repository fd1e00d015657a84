"""The measurements: one file a stage, each a pure function of a clip's frames."""
