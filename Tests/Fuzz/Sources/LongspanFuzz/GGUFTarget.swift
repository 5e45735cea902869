import LongspanKernels
import LongspanModels

/// Opens what libFuzzer made as a GGUF file, uses everything the file offers, and runs it as a model where it is one.
///
/// The bytes are a file's header; behind them lie zeros, which are the tensors' data.
enum GGUFTarget {
  private static let file = MemoryFile()
  private static let tail = 1 << 19

  static func run(_ bytes: [UInt8]) {
    file.write(bytes, zeros: tail)
    do throws(LongspanError) {
      let gguf = try GGUFFile(path: file.path)
      read(gguf)
      try ModelRun.read(ModelRun.load(file.path))
    } catch {
      ModelRun.check(error)
    }
  }

  private static func read(_ file: borrowing GGUFFile) {
    for key in file.metadata.keys {
      _ = try? file.string(key)
      _ = try? file.int(key)
      _ = try? file.float(key)
      _ = try? file.bool(key)
      _ = try? file.strings(key)
      _ = try? file.ints(key)
      _ = try? file.floats(key)
    }
    var sum: UInt8 = 0
    for tensor in file.tensors {
      do throws(LongspanError) {
        let bytes = try file.bytes(of: file.tensor(named: tensor.name))
        if bytes.byteCount != tensor.byteCount { fail("a tensor has other bytes than it says") }
        if let last = bytes.byteOffsets.last {
          sum &+= bytes.unsafeLoad(fromByteOffset: last, as: UInt8.self)
        }
      } catch {
        fail("a tensor of the file cannot be read: \(error.message)")
      }
      if tensor.elementCount < 1 { fail("a tensor without elements") }
    }
    do throws(LongspanError) {
      let tokenizer = try BPETokenizer(file)
      TokenizerTarget.roundTrip("Hello, wörld! 12 <|im_end|>\n", tokenizer, spellsAll: false)
    } catch {
      ModelRun.check(error)
    }
    if let template = try? ChatTemplate(file) {
      _ = template.render([ChatMessage(role: "user", content: "Hello")])
    }
  }
}
