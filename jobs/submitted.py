"""What `ray job submit` starts where the command `psdevise` is not on the PATH; takes the verbs of `psdevise`:

ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/submitted.py run jobs/quickstart.yaml

`evaluate.sh` and `predict.sh` beside this file are two such jobs.
"""

from psdevise.cli.main import main

main()
