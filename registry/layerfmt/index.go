package layerfmt

// Index is a layer's tree index, used where it lies.
type Index struct{}
