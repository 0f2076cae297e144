package ctl

import (
	"errors"
	"slices"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ctl/store"
)

// put stores doc as a new version.
func (d *Daemon) put(doc config.Document, comment string, o store.PutOptions) (version uint64, err error) {
	err = d.stored(func() error {
		version, err = d.store.Put(doc, comment, o)
		return err
	})
	return version, err
}

// get reads a stored version.
func (d *Daemon) get(version uint64) (doc config.Document, err error) {
	err = d.stored(func() error {
		doc, err = d.store.Get(version)
		return err
	})
	return doc, err
}

// stored does something with the store, and tells what is wrong with it since.
func (d *Daemon) stored(do func() error) error {
	known := d.store.Warnings()
	err := do()
	if err != nil && !errors.Is(err, store.ErrNoVersion) {
		d.hub.tell(api.Event{Kind: "store", Message: err.Error()})
	}
	for _, w := range d.store.Warnings() {
		if !slices.Contains(known, w) {
			d.hub.tell(api.Event{Kind: "store", Message: w})
		}
	}
	return err
}
