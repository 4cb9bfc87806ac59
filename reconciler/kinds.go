package reconciler

// EventKinds are all kinds of events, in the order of their declaration.
var EventKinds = []EventKind{
	EventAccepted, EventRefused, EventHeld, EventSynced, EventApplied, EventDeleted, EventReleased, EventRemoved,
	EventAdopted, EventMoved, EventDrift, EventContended, EventViolation, EventFailed, EventSuspended, EventResumed,
	EventApproved, EventRewrite, EventAccepting, EventSync, EventOrphaned, EventForgotten, EventDeparted,
}
