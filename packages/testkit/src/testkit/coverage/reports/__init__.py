"""What is written about an assessment, each form for its readers: people, programs, hosts of repositories."""
