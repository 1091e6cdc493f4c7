package aptlock

import "testing"

// Lines as apt 2.6 prints them.
func TestAptsOwnWordsAreUnderstood(t *testing.T) {
	for line, want := range map[string]string{
		"E: Unable to locate package nosuchpkg":                                                                                  `there is no package "nosuchpkg"`,
		"E: Package 'firmware-x' has no installation candidate":                                                                  `the archive names the package "firmware-x" but does not have it`,
		"E: Couldn't find any package by regex 'x.y'":                                                                            `there is no package "x.y"`,
		"Err:1 http://m tiny InRelease  Temporary failure resolving 'm.invalid'":                                                 `the name of the mirror "m.invalid" cannot be resolved`,
		"Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111: Connection refused)":                                      `the mirror 127.0.0.1:1 does not answer`,
		"E: Write error - write (28: No space left on device)":                                                                   `the disk that holds the package cache is full`,
		"E: The repository 'http://m nosuch Release' does not have a Release file.":                                              `the mirror has no such suite`,
		"E: Release file for http://m/InRelease is expired (invalid since 3d). Updates for this repository will not be applied.": `the index http://m/InRelease is too old`,
		"W: something else": "",
	} {
		if got := explain([]string{"Reading package lists...", line}).What; got != want {
			t.Errorf("%s\ngot  %q\nwant %q", line, got, want)
		}
	}
}
