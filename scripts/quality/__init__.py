"""Parts of `bench_quality.py`: is a searched network better than a random one of the same latency?"""
