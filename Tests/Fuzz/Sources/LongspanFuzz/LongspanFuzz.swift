import CFuzzer
import Glibc

/// Fuzz targets of the readers of model files, run by libFuzzer, whose options the program takes. LSPAN_FUZZ_TARGET names
/// the target: gguf, tokenizer or folder.
@main struct LongspanFuzz {
  static let target = getenv("LSPAN_FUZZ_TARGET").map { String(cString: $0) } ?? ""

  static let run: (@Sendable ([UInt8]) -> Void)? =
    switch target {
    case "gguf": GGUFTarget.run
    case "tokenizer": TokenizerTarget.run
    case "folder": FolderTarget.run
    default: nil
    }

  static func main() {
    guard run != nil else {
      print("LSPAN_FUZZ_TARGET must be gguf, tokenizer or folder")
      exit(2)
    }
    var count = CommandLine.argc
    var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
    exit(LLVMFuzzerRunDriver(&count, &arguments) { testOneInput($0, $1) })
  }
}

/// What the main function of libFuzzer calls, which is linked with the rest of it.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: data, count: size))
  LongspanFuzz.run?(bytes)
  return 0
}

/// libFuzzer calls it to make an input of another, in place.
@_cdecl("LLVMFuzzerCustomMutator")
public func mutate(_ data: UnsafeMutablePointer<UInt8>, _ size: Int, _ most: Int, _ seed: UInt32) -> Int {
  if LongspanFuzz.target == "gguf", seed % 4 != 0 {
    GGUFMutator.mutate(UnsafeMutableBufferPointer(start: data, count: size), seed: seed / 4)
    return size
  }
  return LLVMFuzzerMutate(data, size, most)
}
