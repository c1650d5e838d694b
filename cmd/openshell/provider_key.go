// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/provider"
)

func keyCommand() *cli.Command {
	move := func(to func(*provider.Store) error) cli.ActionFunc {
		return func(c *cli.Context) error {
			store, err := openStore(c)
			if err != nil {
				return err
			}
			if err := to(store); err != nil {
				return err
			}
			return printKeyPlace(c, store)
		}
	}
	return &cli.Command{
		Name: "key", Usage: "where the key is that the store is encrypted with",
		Subcommands: []*cli.Command{
			{Name: "status", Usage: "say where it is", Flags: storeFlags(), Action: move(func(*provider.Store) error { return nil })},
			{
				Name: "keyring", Usage: "move it into this session's keyring (Secret Service, macOS keychain)",
				Description: "Sandboxes with the store's providers can then be created in this session alone,\nnot by Docker, and no credential is made anew.",
				Flags:       storeFlags(), Action: move((*provider.Store).KeyToKeyring),
			},
			{Name: "file", Usage: "move it back into a file that only the owner reads", Flags: storeFlags(), Action: move((*provider.Store).KeyToFile)},
		},
	}
}

func printKeyPlace(c *cli.Context, store *provider.Store) error {
	_, err := fmt.Fprintf(c.App.Writer, "the store's key is in %s\n", store.KeyPlace())
	return err
}
