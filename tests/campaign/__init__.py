"""Programs that break real runs on purpose, for as long as they are given; a short form of the soak is a test.

python -m tests.campaign.kills --runs 20    kill -9 in every phase; audits and hit@1 afterwards
python -m tests.campaign.soak --minutes 30  faults every few seconds; memory and descriptors must stay flat
"""
