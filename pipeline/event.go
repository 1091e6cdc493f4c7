package pipeline

import "time"

// EventKind says what happened in a build.
type EventKind string

// The kinds of event, in the order a step goes through them.
const (
	StepHit      EventKind = "hit"
	StepStarted  EventKind = "started"
	StepProgress EventKind = "progress"
	StepLog      EventKind = "log"
	StepDone     EventKind = "done"
	StepFailed   EventKind = "failed"
	Assembled    EventKind = "assembled"
)

// Event is one thing that happened in a build, for people and for machines.
type Event struct {
	Time time.Time `json:"time"`
	Kind EventKind `json:"kind"`
	Step string    `json:"step,omitempty"`
	// Message is a sentence or a line of a tool's output.
	Message string `json:"message,omitempty"`
	// Done and Total count bytes or items; Total 0 is unknown.
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit,omitempty"`
}
