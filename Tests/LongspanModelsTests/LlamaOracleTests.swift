import Foundation
import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// An array of 32-bit floats that an oracle script wrote.
struct OracleFloats {
  struct Slice: Decodable {
    let offset: Int
    let count: Int
  }

  private let floats: [Float]

  init(_ path: String) throws {
    let bytes = try TestFiles.bytes(TestFiles.fixture(path))
    floats = bytes.withUnsafeBytes { raw in
      (0..<raw.count / 4).map {
        Float(bitPattern: UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)))
      }
    }
  }

  subscript(slice: Slice) -> ArraySlice<Float> { floats[slice.offset..<slice.offset + slice.count] }
}

extension WeightStorage {
  /// The relative error that logits may have: of f32 products, or of inputs rounded to 8 bits (a 254th of each block's
  /// largest at most) in every layer.
  var tolerance: Double { self == .native ? 0.05 : 1e-4 }
}

/// The norm of the difference over the norm of the expected values.
func relativeError(_ actual: some Sequence<Float>, _ expected: some Sequence<Float>) -> Double {
  var difference = 0.0
  var size = 0.0
  for (a, b) in zip(actual, expected) {
    difference += (Double(a) - Double(b)) * (Double(a) - Double(b))
    size += Double(b) * Double(b)
  }
  return (difference / size).squareRoot()
}

extension AlignedBuffer where Element == Float {
  borrowing func array() -> [Float] {
    let span = self.span
    return (0..<span.count).map { span[$0] }
  }
}

/// Hidden states and logits of tiny random Llamas, from Hugging Face transformers in float32 eager.
@Suite(.serialized) struct LlamaOracleTests {
  struct Fixture: Decodable {
    struct Model: Decodable {
      struct Case: Decodable {
        let ids: [Int32]
        let states: [String: OracleFloats.Slice]
      }
      let file: String
      let cases: [Case]
    }
    let models: [Model]
    let sameAs: [String: String]
  }

  private let fixture: Fixture
  private let floats: OracleFloats

  init() throws {
    fixture = try TestFiles.json(Fixture.self, "tiny/tiny.json")
    floats = try OracleFloats("tiny/tiny.f32")
  }

  private func cases(of file: String) throws -> [Fixture.Model.Case] {
    let source = fixture.sameAs[file] ?? file
    return try #require(fixture.models.first { $0.file == source }).cases
  }

  private static let variants = KernelContext.variants.filter(\.isSupported).map(\.name)

  @Test(arguments: ["tied.gguf", "untied.gguf", "tied-v2.gguf"], variants)
  func statesAndLogitsMatchTransformers(file: String, isa: String) throws {
    let path = TestFiles.fixture("tiny/\(file)").path
    for storage in WeightStorage.allCases {
      let model = try LlamaModel(path: path, storage: storage, context: KernelContext(threads: 2, isa: isa))
      for oracle in try cases(of: file) {
        var cache = try model.makeCache()
        var workspace = Workspace()
        var seen: [String: [Float]] = [:]
        let hidden = try model.hiddenStates(of: oracle.ids, cache: &cache, workspace: &workspace) {
          layer, span in
          seen[layer < 0 ? "embedding" : "layer.\(layer)"] = (0..<span.count).map { span[$0] }
        }
        seen["norm"] = hidden.array()
        seen["logits"] = try model.logits(of: hidden, rows: 0..<oracle.ids.count, workspace: &workspace)
          .array()
        #expect(Set(seen.keys) == Set(oracle.states.keys))
        for (state, slice) in oracle.states {
          let actual = try #require(seen[state])
          #expect(actual.count == slice.count)
          let error = relativeError(actual, floats[slice])
          #expect(
            error < storage.tolerance, "\(file) \(state) \(storage) under \(isa): relative error \(error)")
        }
      }
    }
  }

  /// Chunked and one-by-one reading fill the cache alike and end with the same logits.
  @Test(arguments: ElementType.allCases) func chunksDoNotChangeTheResult(type: ElementType) throws {
    let model = try LlamaModel(path: TestFiles.fixture("tiny/untied.gguf").path)
    let ids = try #require(try cases(of: "untied.gguf").first).ids
    var reference: [Float] = []
    for chunk in [ids.count, 1, 2, 8, 9, 1000] {
      var cache = try model.makeCache(elementType: type)
      var workspace = Workspace()
      let logits = try model.prefill(ids, into: &cache, chunk: chunk, workspace: &workspace).array()
      #expect(cache.count == ids.count)
      if reference.isEmpty { reference = logits }
      // Only the order of f32 sums differs, but a sum that falls on the other side of a rounding boundary moves a
      // narrow key by one ulp.
      #expect(relativeError(logits, reference) < (type == .f32 ? 1e-5 : 2e-4), "chunk \(chunk)")
    }
  }

  @Test func aNarrowCacheStaysNearTheFullOne() throws {
    let model = try LlamaModel(path: TestFiles.fixture("tiny/tied.gguf").path)
    let ids = try #require(try cases(of: "tied.gguf").first).ids
    var results: [ElementType: [Float]] = [:]
    for type in ElementType.allCases {
      var cache = try model.makeCache(elementType: type)
      var workspace = Workspace()
      results[type] = try model.prefill(ids, into: &cache, workspace: &workspace).array()
    }
    let full = try #require(results[.f32])
    let f16 = try #require(results[.f16])
    let bf16 = try #require(results[.bf16])
    // half an ulp of keys and values: 2^-12 for f16 and 2^-9 for bf16, times what two layers amplify
    #expect(relativeError(f16, full) < 2e-3 && relativeError(f16, full) > 0)
    #expect(relativeError(bf16, full) < 2e-2 && relativeError(bf16, full) > 0)
  }

  @Test func refusesTokensAndCachesOfAnotherModel() throws {
    let model = try LlamaModel(path: TestFiles.fixture("tiny/tied.gguf").path)
    var workspace = Workspace()
    var cache = try model.makeCache()
    for ids in [[], [-1], [Int32(model.vocabularySize)]] as [[Int32]] {
      #expect(throws: LongspanError.self) {
        _ = try model.hiddenStates(of: ids, cache: &cache, workspace: &workspace)
      }
      #expect(cache.count == 0)
    }
    #expect(throws: LongspanError.self) {
      _ = try model.prefill([], into: &cache, workspace: &workspace)
    }
    #expect(throws: LongspanError.self) {
      _ = try model.prefill([1], into: &cache, chunk: 0, workspace: &workspace)
    }
    var other = try KVCache(KVShape(layers: 1, heads: 1, headDimension: 8))
    #expect(throws: LongspanError.self) {
      _ = try model.hiddenStates(of: [1], cache: &other, workspace: &workspace)
    }
  }

  @Test(arguments: [
    ("unknown-architecture.gguf", "frobnicate"), ("missing-tensor.gguf", "blk.0.ffn_down.weight"),
    ("unsupported-type.gguf", "IQ2_XXS"), ("no-merges.gguf", "tokenizer.ggml.merges"),
  ])
  func faultyFilesAreRefusedByName(file: String, part: String) {
    let error = #expect(throws: LongspanError.self) {
      _ = try LlamaModel(path: TestFiles.fixture("tiny/\(file)").path)
    }
    #expect(error?.message.contains(part) == true)
    #expect(error?.message.contains(file) == true)
  }

  @Test func progressCanStopReading() throws {
    let model = try LlamaModel(path: TestFiles.fixture("tiny/tied.gguf").path)
    var cache = try model.makeCache()
    var workspace = Workspace()
    var steps: [Int] = []
    let error = #expect(throws: LongspanError.self) {
      _ = try model.prefill([1, 2, 3, 4, 5], into: &cache, chunk: 2, workspace: &workspace) { progress in
        steps.append(progress.completed)
        return progress.completed < 4
      }
    }
    #expect(error?.code == .cancelled)
    #expect(steps == [2, 4])
    #expect(cache.count == 4)
  }
}
