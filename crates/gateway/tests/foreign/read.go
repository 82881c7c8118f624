// Reads a log as it lies in a folder with the library behind Go's checksum database: the
// checkpoint's signature, the inclusion of every entry, and consistency with every smaller size.
//
//	go run read.go FOLDER VERIFIER_KEY
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type folder string

// path leaves out the height, which Go puts into the paths and C2SP does not.
func (f folder) path(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
	path = strings.Replace(path, "tile/data/", "tile/entries/", 1)
	return filepath.Join(string(f), path)
}

func (f folder) Height() int { return height }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		bytes, err := os.ReadFile(f.path(tile))
		if err != nil {
			return nil, err
		}
		all = append(all, bytes)
	}
	return all, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) entries(size int64) (entries [][]byte) {
	for n := int64(0); n*256 < size; n++ {
		width := min(size-n*256, 256)
		bytes, err := os.ReadFile(f.path(tlog.Tile{H: height, L: -1, N: n, W: int(width)}))
		check(err)
		for len(bytes) > 0 {
			end := 2 + int(binary.BigEndian.Uint16(bytes))
			entries = append(entries, bytes[2:end])
			bytes = bytes[end:]
		}
	}
	return entries
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

func main() {
	log := folder(os.Args[1])
	key, err := note.NewVerifier(strings.TrimSpace(os.Args[2]))
	check(err)
	signed, err := os.ReadFile(filepath.Join(string(log), "checkpoint"))
	check(err)
	opened, err := note.Open(signed, note.VerifierList(key))
	check(err)
	// tlog.ParseTree knows only the origin of Go's own log.
	lines := strings.Split(opened.Text, "\n")
	text := "go.sum database tree\n" + strings.Join(lines[1:3], "\n") + "\n"
	tree, err := tlog.ParseTree([]byte(text))
	check(err)
	hashes := tlog.TileHashReader(tree, log)
	entries := log.entries(tree.N)
	if int64(len(entries)) != tree.N {
		check(fmt.Errorf("%d entries, %d signed", len(entries), tree.N))
	}
	for n, entry := range entries {
		proof, err := tlog.ProveRecord(tree.N, int64(n), hashes)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, int64(n), tlog.RecordHash(entry)))
	}
	for size := int64(1); size < tree.N; size++ {
		root, err := tlog.TreeHash(size, hashes)
		check(err)
		proof, err := tlog.ProveTree(tree.N, size, hashes)
		check(err)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, size, root))
	}
	fmt.Printf("%s: %d entries\n", lines[0], tree.N)
}
