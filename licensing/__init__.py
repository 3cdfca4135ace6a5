"""What the licences and the contracts say of a release, as data and pure functions. Not legal advice."""
