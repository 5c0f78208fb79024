"""What `ray job submit` starts where the command `psdevise` is not on the PATH:

ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/submitted.py run jobs/quickstart.yaml
"""

from psdevise.cli.main import main

main()
