"""Pure policy: who runs, what each round forwards, how far to draft; time comes in as an argument."""
