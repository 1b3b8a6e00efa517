"""What is a training job, and can a study use it?

Start with `job` (`Job` and `OwnLoop`, the pieces that a user writes), then `check` (looks a job over before a study):
`start` tries its first steps, `dependence` asks what its figures depend on.
"""
