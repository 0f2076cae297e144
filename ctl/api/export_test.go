package api

// ExplainForTest makes the sentence for a failure that root cannot cause.
func ExplainForTest(socket string, err error) error {
	return (&Client{socket: socket}).explain(err)
}
