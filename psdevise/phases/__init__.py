"""Language, visual and joint: each phase's options and the Task that workers run for it."""
