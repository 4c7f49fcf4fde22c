"""The queue model: jobs, functions, workers and time. It has never heard of packets or sockets."""
