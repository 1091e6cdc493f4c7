//go:build !linux

package main

import (
	"errors"

	"rhizome/serve/simulate"
)

func processUsage(int) (simulate.Usage, error) {
	return simulate.Usage{}, errors.New("simulating works on Linux alone")
}
